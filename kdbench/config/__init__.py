"""What a run is made of: gin files turned into checked values. No torch here."""
