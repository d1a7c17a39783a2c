"""Detection of lung opacities in chest radiographs."""
