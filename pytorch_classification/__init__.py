"""The question whether a chest radiograph is NORMAL or shows PNEUMONIA."""
