"""Who is where, and whose visit is it: cameras and their health, tracks of people, their arms, gates and visits."""
