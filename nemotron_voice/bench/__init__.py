"""What this machine holds: `nemotron-voice bench`. Each file measures one thing."""
