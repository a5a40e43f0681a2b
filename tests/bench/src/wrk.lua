-- What wrk sends: each request reads or replaces one peer, in random order.
-- Arguments: the method, and a file with a line for each peer: its path, a space, and a body.

local requests = {}

function init(arguments)
    local method = arguments[1]
    for line in io.lines(arguments[2]) do
        local path, body = line:match("^(%S+) (.*)$")
        if method == "PUT" then
            requests[#requests + 1] =
                wrk.format(method, path, { ["Content-Type"] = "application/json" }, body)
        else
            requests[#requests + 1] = wrk.format(method, path)
        end
    end
end

function request()
    return requests[math.random(#requests)]
end

-- How many were answered, in how many microseconds, and how many of them failed.
function done(summary)
    local failed = 0
    for _, count in pairs(summary.errors) do
        failed = failed + count
    end
    io.write(string.format("done %d %d %d\n", summary.requests, summary.duration, failed))
end
