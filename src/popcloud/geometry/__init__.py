"""Who is whose neighbour: voxels, kernel maps, nearest points. Empty while all networks are PointNets."""
