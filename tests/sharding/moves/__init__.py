"""Moving slots: on servers of its own, which may be killed."""
