"""Ventris inside other people's programs, one file each; their packages are optional extras."""
