"""How synthetic scenes are made: what is placed (`layout`), how it is drawn, and how two cameras see it (`sensors`)."""
