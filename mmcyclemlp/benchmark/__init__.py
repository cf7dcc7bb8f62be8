"""How fast CycleMLP runs beside its alternatives; needs torch alone."""
