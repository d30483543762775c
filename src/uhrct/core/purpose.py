"""What the program is for, as every report and page says it."""

NOTE = "Research use only; not a medical device."
