"""The runtime spine of this project: yours to read and to edit."""
