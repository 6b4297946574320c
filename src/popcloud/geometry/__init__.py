"""Who is whose neighbour: active sites, kernel maps, the pyramid of a network, in numpy."""
