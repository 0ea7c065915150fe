"""The people's door: `./cumulog VERB`. One module a verb or a small group of them."""
