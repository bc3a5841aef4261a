"""What happened: collecting, joining and counting samples."""
