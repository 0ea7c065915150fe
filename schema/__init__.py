"""The words: events, commands, states and the pure folds over them. Everybody may import it; it imports nobody."""
