"""PyJWT reads a token of ours: TOKEN PUBLIC_KEY_PEM AUDIENCE ALGORITHM. Prints its claims, as JSON."""
import json
import sys

import jwt

token, key, audience, algorithm = sys.argv[1:5]
print(json.dumps(jwt.decode(token, key, algorithms=[algorithm], audience=audience)))
