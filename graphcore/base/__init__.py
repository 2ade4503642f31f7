"""The ground: errors, source lines, element types, extents."""
