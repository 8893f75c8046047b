"""The generated demo product: parts to try the tool on before a camera exists."""
