"""Synthetic chest radiographs from the physics: a drawn chest, X-rays through it, a detector and a display."""
