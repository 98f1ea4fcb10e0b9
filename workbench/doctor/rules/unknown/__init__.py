"""What the words of an error that no table knows still tell, by kind of error."""
