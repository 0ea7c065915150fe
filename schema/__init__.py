"""The words: events, commands, states and the pure folds over them. Everybody may import this layer; it imports nobody."""
