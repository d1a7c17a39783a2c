"""Is this chest radiograph NORMAL or PNEUMONIA?"""
