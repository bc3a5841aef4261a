-- One account. TOOLKIT_LOGIN_FILE holds its SCRAM-SHA-256 verifier, so that the password is not on this node at all;
-- without that file the testbed's brokers are open and user and password are "toolkit".
local json = require "util.json";
local base64 = require "util.encodings".base64;
local new_sasl = require "util.sasl".new;

local open_login = { user = "toolkit", password = "toolkit" };

local function read_login(path)
	if not path then
		return open_login;
	end
	local file = assert(io.open(path, "r"));
	local login = assert(json.decode(file:read("*a")));
	file:close();
	return login;
end

local login = read_login(os.getenv("TOOLKIT_LOGIN_FILE"));
local provider = { name = "testbed" };

function provider.user_exists(username)
	return username == login.user;
end

function provider.users()
	return next, { [login.user] = true };
end

function provider.is_enabled(username)
	return username == login.user;
end

function provider.test_password(username, password)
	return login.password ~= nil and username == login.user and password == login.password;
end

function provider.set_password()
	return nil, "the account is given by the testbed";
end

provider.create_user = provider.set_password;
provider.delete_user = provider.set_password;

function provider.get_sasl_handler()
	if login.password then
		return new_sasl(module.host, {
			plain = function(_, username)
				return username == login.user and login.password or nil, username == login.user;
			end;
		});
	end
	return new_sasl(module.host, {
		scram_sha_256 = function(_, username)
			if username ~= login.user then
				return nil, nil, nil, nil, nil;
			end
			return base64.decode(login.stored_key), base64.decode(login.server_key), login.rounds, base64.decode(login.salt), true;
		end;
	});
end

module:provides("auth", provider);
