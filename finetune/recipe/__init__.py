"""What a recipe says: `recipe` holds it, `reading` makes it of YAML."""
