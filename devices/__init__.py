"""Hardware, network and files, turned into chunks of samples. One file, one address scheme."""
