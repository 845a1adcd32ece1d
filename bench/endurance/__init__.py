"""Does it survive kills, outages, overload and long days, with the same results?"""
