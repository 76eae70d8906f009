-- wrk's script: the model stub alone.
wrk.method = "POST"
wrk.headers["content-type"] = "application/json"
wrk.body = '{"model":"stub","messages":[{"role":"user","content":"' .. string.rep("x", 600) .. '"}]}'
