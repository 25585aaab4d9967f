"""Operations with a readable naive form and a fast one that is tested against it."""
