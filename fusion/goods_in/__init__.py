"""How does what an owner has, spreadsheets and worksheets, become tables of a store folder?"""
