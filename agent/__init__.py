"""DreamerV3, its riders and the gate, as functions of arrays. Import its rooms, not this."""
