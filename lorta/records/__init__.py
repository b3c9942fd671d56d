"""The record of a run and where records are stored. Imports no other package of lorta."""
