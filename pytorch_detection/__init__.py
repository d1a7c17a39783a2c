"""The question where in a chest radiograph lung opacities are."""
