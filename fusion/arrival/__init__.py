"""In which form and at what time do observations reach the engine?"""
