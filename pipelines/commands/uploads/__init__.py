"""Commands about one upload: send it, let somebody else send it, end it. They learn nothing."""
