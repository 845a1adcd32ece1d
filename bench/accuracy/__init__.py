"""Is the receipt right, and is the stated probability honest?"""
