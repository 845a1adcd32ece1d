"""What do many stores cost?"""
