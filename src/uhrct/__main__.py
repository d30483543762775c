from uhrct.cli import main

main()
