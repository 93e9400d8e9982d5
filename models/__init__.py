"""Windows turned into estimates: encoders, fusion, bundles and the runtimes that run them."""
