"""What may be down without hurting traffic: probes, the admin listener."""
