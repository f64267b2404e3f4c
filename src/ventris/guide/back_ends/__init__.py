"""Back ends of hard guides: llguidance, and others behind the same protocol."""
