"""What a refiner is worth: masks before and after every iteration, by size and start, and what it says of itself."""
