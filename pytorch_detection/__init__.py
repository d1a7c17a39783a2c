"""Where in this chest radiograph is the lung opacity?"""
