from uhrct.cli.main import main

main()
