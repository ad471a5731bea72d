"""Every regulariser is one file in this folder; being here is being registered."""
