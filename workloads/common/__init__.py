"""What several workloads share: networks and the handling of tables of samples."""
