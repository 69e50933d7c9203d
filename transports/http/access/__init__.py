"""Who asks, how that is proven, from where it may be asked, and what is noted of it."""
