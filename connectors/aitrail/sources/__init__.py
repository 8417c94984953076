"""Sources: one file each; they frame records and keep no state (see ``ports.Source``)."""
