"""When jobs are due: rules read from definitions, the instants they name, and what came of each."""
