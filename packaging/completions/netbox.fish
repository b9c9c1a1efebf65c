# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_netbox_global_optspecs
    string join \n h/help V/version
end

function __fish_netbox_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_netbox_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_netbox_using_subcommand
    set -l cmd (__fish_netbox_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c netbox -n "__fish_netbox_needs_command" -s h -l help -d 'Print help'
complete -c netbox -n "__fish_netbox_needs_command" -s V -l version -d 'Print version'
complete -c netbox -n "__fish_netbox_needs_command" -f -a "run" -d 'Start a command in a box'
complete -c netbox -n "__fish_netbox_needs_command" -f -a "exec" -d 'Start a further command in a box'
complete -c netbox -n "__fish_netbox_needs_command" -f -a "ps" -d 'List the boxes'
complete -c netbox -n "__fish_netbox_needs_command" -f -a "port" -d 'List and change the published ports of boxes'
complete -c netbox -n "__fish_netbox_needs_command" -f -a "logs" -d 'Show what a detached box printed'
complete -c netbox -n "__fish_netbox_needs_command" -f -a "wait" -d 'Wait for the end of boxes, and exit as the last one did'
complete -c netbox -n "__fish_netbox_needs_command" -f -a "rm" -d 'Forget detached boxes that have ended, and their output'
complete -c netbox -n "__fish_netbox_needs_command" -f -a "inspect" -d 'Show everything about boxes, as JSON'
complete -c netbox -n "__fish_netbox_needs_command" -f -a "pids" -d 'List the processes of a box'
complete -c netbox -n "__fish_netbox_needs_command" -f -a "identify" -d 'Tell which box a process is in'
complete -c netbox -n "__fish_netbox_needs_command" -f -a "stats" -d 'Show the traffic of boxes, every second'
complete -c netbox -n "__fish_netbox_needs_command" -f -a "monitor" -d 'Tell when boxes start and end, and when their ports change'
complete -c netbox -n "__fish_netbox_needs_command" -f -a "stop" -d 'End boxes: SIGTERM to the command, and after a while SIGKILL'
complete -c netbox -n "__fish_netbox_needs_command" -f -a "kill" -d 'Send a signal to the commands of boxes'
complete -c netbox -n "__fish_netbox_needs_command" -f -a "network" -d 'Make, list and remove networks that boxes share, and change who is in them'
complete -c netbox -n "__fish_netbox_needs_command" -f -a "gc" -d 'Remove what boxes left that were killed together with netbox'
complete -c netbox -n "__fish_netbox_needs_command" -f -a "gateway" -d 'Start a command in the gateway\'s network, to look at it'
complete -c netbox -n "__fish_netbox_needs_command" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c netbox -n "__fish_netbox_using_subcommand run" -s p -l publish -d 'Publish a port of the box on the host: [[IP:][HOSTPORT[-END]]:]BOXPORT[-END][/tcp|udp|sctp]' -r
complete -c netbox -n "__fish_netbox_using_subcommand run" -l host-port -d 'Let the box reach this port of the host\'s 127.0.0.1, as host.netbox.internal: PORT[:BOXPORT][/tcp|udp]' -r
complete -c netbox -n "__fish_netbox_using_subcommand run" -l net -l network -d 'The box\'s network: nat (its own, behind a router), none (its own, unconnected), host, one of `netbox network`, box:NAME (another box\'s), netns:NAME or netns:PATH (a network namespace that is there). More than once for a box in several networks: eth0, eth1, …, the first with the way out' -r
complete -c netbox -n "__fish_netbox_using_subcommand run" -l mtu -d 'The MTU of the box\'s link in bytes [default: the uplink\'s]' -r
complete -c netbox -n "__fish_netbox_using_subcommand run" -l ip -d 'Give the box this address of the pool' -r
complete -c netbox -n "__fish_netbox_using_subcommand run" -l ip6 -d 'Give the box this IPv6 address; the first box chooses the pool by it' -r
complete -c netbox -n "__fish_netbox_using_subcommand run" -l pool -d 'The range of addresses for boxes, /18 to /27, if this is the first box' -r
complete -c netbox -n "__fish_netbox_using_subcommand run" -l snat -d 'Send with this address of the host\'s, instead of that of the interface that a packet leaves by' -r
complete -c netbox -n "__fish_netbox_using_subcommand run" -l mac -d 'The hardware address of the box\'s link' -r
complete -c netbox -n "__fish_netbox_using_subcommand run" -l dns -d 'Ask this name server, from the host\'s network, instead of those that the host asks' -r
complete -c netbox -n "__fish_netbox_using_subcommand run" -l dns-search -d 'Look for names without dots in this domain, instead of the host\'s; `.` for none' -r
complete -c netbox -n "__fish_netbox_using_subcommand run" -l add-host -d 'Add a name to the box\'s hosts file' -r
complete -c netbox -n "__fish_netbox_using_subcommand run" -l hostname -d 'The box\'s host name; implies --unshare-uts' -r
complete -c netbox -n "__fish_netbox_using_subcommand run" -l export-netns -d 'Show the box\'s network to ip-netns(8) as /run/netns/NAME [default: the box\'s name]' -r
complete -c netbox -n "__fish_netbox_using_subcommand run" -s u -l user -d 'Run the command as this user, and group, by name or number [default: who called]' -r
complete -c netbox -n "__fish_netbox_using_subcommand run" -l cap-add -d 'Give a box of root this capability, in a user namespace of its own' -r
complete -c netbox -n "__fish_netbox_using_subcommand run" -l cap-drop -d 'Take this capability from a box of root; ALL for all of them' -r
complete -c netbox -n "__fish_netbox_using_subcommand run" -l name -d 'Name the box' -r
complete -c netbox -n "__fish_netbox_using_subcommand run" -s w -l workdir -d 'Start the command in this directory' -r
complete -c netbox -n "__fish_netbox_using_subcommand run" -s e -l env -d 'Set a variable of the environment, or copy the caller\'s' -r
complete -c netbox -n "__fish_netbox_using_subcommand run" -l timeout -d 'End the command after this time, as in 500ms, 30s or 1h30m' -r
complete -c netbox -n "__fish_netbox_using_subcommand run" -l keep-fd -d 'Let the command inherit this file descriptor' -r
complete -c netbox -n "__fish_netbox_using_subcommand run" -l json-status-fd -d 'Write to this file descriptor, in JSON, when the command has started and ended' -r
complete -c netbox -n "__fish_netbox_using_subcommand run" -s P -l publish-all -d 'Publish every port that the box listens on, on free ports of the host, for as long as it does'
complete -c netbox -n "__fish_netbox_using_subcommand run" -l no-ipv6 -d 'Give the box no IPv6 address'
complete -c netbox -n "__fish_netbox_using_subcommand run" -l unshare-mount -d 'Keep mounts that the host makes later out of the box'
complete -c netbox -n "__fish_netbox_using_subcommand run" -l unshare-pid -d 'Give the box processes of its own, under a small init'
complete -c netbox -n "__fish_netbox_using_subcommand run" -l unshare-uts -d 'Give the box a host name of its own'
complete -c netbox -n "__fish_netbox_using_subcommand run" -l unshare-ipc -d 'Give the box System V IPC and message queues of its own'
complete -c netbox -n "__fish_netbox_using_subcommand run" -l allow-new-privs -d 'Let sudo and other set-user-id programs work in the box'
complete -c netbox -n "__fish_netbox_using_subcommand run" -s d -l detach -d 'Return when the command runs, and print the box\'s id; without a command the box just waits'
complete -c netbox -n "__fish_netbox_using_subcommand run" -l clear-env -d 'Start with PATH, HOME, USER and TERM only'
complete -c netbox -n "__fish_netbox_using_subcommand run" -l dry-run -d 'Say what would be done, and do nothing'
complete -c netbox -n "__fish_netbox_using_subcommand run" -l json -d 'With --dry-run: say it as JSON'
complete -c netbox -n "__fish_netbox_using_subcommand run" -s q -l quiet -d 'No warnings'
complete -c netbox -n "__fish_netbox_using_subcommand run" -l verbose -d 'Say what is decided and why'
complete -c netbox -n "__fish_netbox_using_subcommand run" -l rm -d 'With -d: forget the box when it ends. Without, a box is always removed'
complete -c netbox -n "__fish_netbox_using_subcommand run" -s i -l interactive -d 'A box in the foreground always has the caller\'s stdin'
complete -c netbox -n "__fish_netbox_using_subcommand run" -s t -l tty -d 'A box in the foreground always has the caller\'s terminal'
complete -c netbox -n "__fish_netbox_using_subcommand run" -s h -l help -d 'Print help'
complete -c netbox -n "__fish_netbox_using_subcommand exec" -s u -l user -d 'Run the command as this user, and group, by name or number [default: the box\'s]' -r
complete -c netbox -n "__fish_netbox_using_subcommand exec" -s w -l workdir -d 'Start the command in this directory' -r
complete -c netbox -n "__fish_netbox_using_subcommand exec" -s e -l env -d 'Set a variable of the environment, or copy the caller\'s' -r
complete -c netbox -n "__fish_netbox_using_subcommand exec" -l all -d 'In every box that lives, one after the other'
complete -c netbox -n "__fish_netbox_using_subcommand exec" -l clear-env -d 'Start with PATH, HOME, USER and TERM only'
complete -c netbox -n "__fish_netbox_using_subcommand exec" -s i -l interactive -d 'A command always has the caller\'s stdin'
complete -c netbox -n "__fish_netbox_using_subcommand exec" -s t -l tty -d 'A command always has the caller\'s terminal'
complete -c netbox -n "__fish_netbox_using_subcommand exec" -s h -l help -d 'Print help'
complete -c netbox -n "__fish_netbox_using_subcommand ps" -s f -l filter -d 'Only boxes with name=PART, id=START, net=NETWORK, status=running|exited or exited=STATUS' -r
complete -c netbox -n "__fish_netbox_using_subcommand ps" -s a -l all -d 'Detached boxes that have ended too'
complete -c netbox -n "__fish_netbox_using_subcommand ps" -s q -l quiet -d 'Ids only'
complete -c netbox -n "__fish_netbox_using_subcommand ps" -l json -d 'As JSON'
complete -c netbox -n "__fish_netbox_using_subcommand ps" -s h -l help -d 'Print help'
complete -c netbox -n "__fish_netbox_using_subcommand port; and not __fish_seen_subcommand_from ls add rm" -s h -l help -d 'Print help'
complete -c netbox -n "__fish_netbox_using_subcommand port; and not __fish_seen_subcommand_from ls add rm" -f -a "ls" -d 'List the published ports of a box, or of all boxes'
complete -c netbox -n "__fish_netbox_using_subcommand port; and not __fish_seen_subcommand_from ls add rm" -f -a "add" -d 'Publish ports of a box that runs, as run -p does'
complete -c netbox -n "__fish_netbox_using_subcommand port; and not __fish_seen_subcommand_from ls add rm" -f -a "rm" -d 'Give up published ports of a box that runs: [IP:]HOSTPORT[-END][:BOXPORT[-END]][/PROTOCOL]'
complete -c netbox -n "__fish_netbox_using_subcommand port; and __fish_seen_subcommand_from ls" -l json -d 'As JSON'
complete -c netbox -n "__fish_netbox_using_subcommand port; and __fish_seen_subcommand_from ls" -s h -l help -d 'Print help'
complete -c netbox -n "__fish_netbox_using_subcommand port; and __fish_seen_subcommand_from add" -s h -l help -d 'Print help'
complete -c netbox -n "__fish_netbox_using_subcommand port; and __fish_seen_subcommand_from rm" -s h -l help -d 'Print help'
complete -c netbox -n "__fish_netbox_using_subcommand logs" -s n -l tail -d 'Begin with the last N lines; `all` for all' -r
complete -c netbox -n "__fish_netbox_using_subcommand logs" -s f -l follow -d 'Go on until the box has ended'
complete -c netbox -n "__fish_netbox_using_subcommand logs" -s t -l timestamps -d 'Put before each line when it was printed'
complete -c netbox -n "__fish_netbox_using_subcommand logs" -s h -l help -d 'Print help'
complete -c netbox -n "__fish_netbox_using_subcommand wait" -s h -l help -d 'Print help'
complete -c netbox -n "__fish_netbox_using_subcommand rm" -s f -l force -d 'Kill the box first, if it lives'
complete -c netbox -n "__fish_netbox_using_subcommand rm" -s a -l all -d 'Forget all that have ended'
complete -c netbox -n "__fish_netbox_using_subcommand rm" -s h -l help -d 'Print help'
complete -c netbox -n "__fish_netbox_using_subcommand inspect" -l format -d 'Print one part, by its JSON pointer: /0/addresses/ipv4' -r
complete -c netbox -n "__fish_netbox_using_subcommand inspect" -s h -l help -d 'Print help'
complete -c netbox -n "__fish_netbox_using_subcommand pids" -l json -d 'As JSON'
complete -c netbox -n "__fish_netbox_using_subcommand pids" -s h -l help -d 'Print help'
complete -c netbox -n "__fish_netbox_using_subcommand identify" -s h -l help -d 'Print help'
complete -c netbox -n "__fish_netbox_using_subcommand stats" -l no-stream -d 'Once, and not again every second'
complete -c netbox -n "__fish_netbox_using_subcommand stats" -l json -d 'As JSON'
complete -c netbox -n "__fish_netbox_using_subcommand stats" -s h -l help -d 'Print help'
complete -c netbox -n "__fish_netbox_using_subcommand monitor" -l json -d 'As JSON'
complete -c netbox -n "__fish_netbox_using_subcommand monitor" -s h -l help -d 'Print help'
complete -c netbox -n "__fish_netbox_using_subcommand stop" -s t -l time -d 'Kill what has not ended after so long: seconds, or 500ms, 1m [default: 10]' -r
complete -c netbox -n "__fish_netbox_using_subcommand stop" -l all -d 'Every box'
complete -c netbox -n "__fish_netbox_using_subcommand stop" -s h -l help -d 'Print help'
complete -c netbox -n "__fish_netbox_using_subcommand kill" -s s -l signal -d 'Which signal: a name or a number [default: KILL]' -r
complete -c netbox -n "__fish_netbox_using_subcommand kill" -s h -l help -d 'Print help'
complete -c netbox -n "__fish_netbox_using_subcommand network; and not __fish_seen_subcommand_from create ls list inspect rm remove prune connect disconnect help" -s h -l help -d 'Print help'
complete -c netbox -n "__fish_netbox_using_subcommand network; and not __fish_seen_subcommand_from create ls list inspect rm remove prune connect disconnect help" -f -a "create" -d 'Make a network'
complete -c netbox -n "__fish_netbox_using_subcommand network; and not __fish_seen_subcommand_from create ls list inspect rm remove prune connect disconnect help" -f -a "ls" -d 'List the networks'
complete -c netbox -n "__fish_netbox_using_subcommand network; and not __fish_seen_subcommand_from create ls list inspect rm remove prune connect disconnect help" -f -a "list" -d 'List the networks'
complete -c netbox -n "__fish_netbox_using_subcommand network; and not __fish_seen_subcommand_from create ls list inspect rm remove prune connect disconnect help" -f -a "inspect" -d 'Say everything about networks, as JSON'
complete -c netbox -n "__fish_netbox_using_subcommand network; and not __fish_seen_subcommand_from create ls list inspect rm remove prune connect disconnect help" -f -a "rm" -d 'Remove networks'
complete -c netbox -n "__fish_netbox_using_subcommand network; and not __fish_seen_subcommand_from create ls list inspect rm remove prune connect disconnect help" -f -a "remove" -d 'Remove networks'
complete -c netbox -n "__fish_netbox_using_subcommand network; and not __fish_seen_subcommand_from create ls list inspect rm remove prune connect disconnect help" -f -a "prune" -d 'Remove the networks that no box is in'
complete -c netbox -n "__fish_netbox_using_subcommand network; and not __fish_seen_subcommand_from create ls list inspect rm remove prune connect disconnect help" -f -a "connect" -d 'Take a box that runs into a further network'
complete -c netbox -n "__fish_netbox_using_subcommand network; and not __fish_seen_subcommand_from create ls list inspect rm remove prune connect disconnect help" -f -a "disconnect" -d 'Take a box that runs out of a network'
complete -c netbox -n "__fish_netbox_using_subcommand network; and not __fish_seen_subcommand_from create ls list inspect rm remove prune connect disconnect help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c netbox -n "__fish_netbox_using_subcommand network; and __fish_seen_subcommand_from create" -l subnet -d 'The range of its addresses, one for each family [default: a free /24; a random /64]' -r
complete -c netbox -n "__fish_netbox_using_subcommand network; and __fish_seen_subcommand_from create" -l gateway -d 'The gateway\'s address in it, likewise [default: the first]' -r
complete -c netbox -n "__fish_netbox_using_subcommand network; and __fish_seen_subcommand_from create" -l ip-range -d 'Give boxes addresses from this part of it, likewise' -r
complete -c netbox -n "__fish_netbox_using_subcommand network; and __fish_seen_subcommand_from create" -l mtu -d 'The MTU of its links in bytes [default: the uplink\'s]' -r
complete -c netbox -n "__fish_netbox_using_subcommand network; and __fish_seen_subcommand_from create" -l label -d 'Call it something besides' -r
complete -c netbox -n "__fish_netbox_using_subcommand network; and __fish_seen_subcommand_from create" -l route -d 'Have the host send what is for CIDR by way of VIA' -r
complete -c netbox -n "__fish_netbox_using_subcommand network; and __fish_seen_subcommand_from create" -l no-masquerade -d 'Its boxes and CIDR reach each other by their own addresses' -r
complete -c netbox -n "__fish_netbox_using_subcommand network; and __fish_seen_subcommand_from create" -s d -l driver -d 'What kind it is: bridge' -r
complete -c netbox -n "__fish_netbox_using_subcommand network; and __fish_seen_subcommand_from create" -l ipv6 -d 'Its boxes have IPv6 too'
complete -c netbox -n "__fish_netbox_using_subcommand network; and __fish_seen_subcommand_from create" -l internal -d 'No way out, and none in'
complete -c netbox -n "__fish_netbox_using_subcommand network; and __fish_seen_subcommand_from create" -l isolate -d 'Its boxes do not reach each other'
complete -c netbox -n "__fish_netbox_using_subcommand network; and __fish_seen_subcommand_from create" -s h -l help -d 'Print help'
complete -c netbox -n "__fish_netbox_using_subcommand network; and __fish_seen_subcommand_from ls" -l json -d 'As JSON'
complete -c netbox -n "__fish_netbox_using_subcommand network; and __fish_seen_subcommand_from ls" -s q -l quiet -d 'Their names alone'
complete -c netbox -n "__fish_netbox_using_subcommand network; and __fish_seen_subcommand_from ls" -s h -l help -d 'Print help'
complete -c netbox -n "__fish_netbox_using_subcommand network; and __fish_seen_subcommand_from list" -l json -d 'As JSON'
complete -c netbox -n "__fish_netbox_using_subcommand network; and __fish_seen_subcommand_from list" -s q -l quiet -d 'Their names alone'
complete -c netbox -n "__fish_netbox_using_subcommand network; and __fish_seen_subcommand_from list" -s h -l help -d 'Print help'
complete -c netbox -n "__fish_netbox_using_subcommand network; and __fish_seen_subcommand_from inspect" -s h -l help -d 'Print help'
complete -c netbox -n "__fish_netbox_using_subcommand network; and __fish_seen_subcommand_from rm" -s h -l help -d 'Print help'
complete -c netbox -n "__fish_netbox_using_subcommand network; and __fish_seen_subcommand_from remove" -s h -l help -d 'Print help'
complete -c netbox -n "__fish_netbox_using_subcommand network; and __fish_seen_subcommand_from prune" -s h -l help -d 'Print help'
complete -c netbox -n "__fish_netbox_using_subcommand network; and __fish_seen_subcommand_from connect" -l ip -d 'The address that the box is to have there' -r
complete -c netbox -n "__fish_netbox_using_subcommand network; and __fish_seen_subcommand_from connect" -l ip6 -d 'The IPv6 address that it is to have there' -r
complete -c netbox -n "__fish_netbox_using_subcommand network; and __fish_seen_subcommand_from connect" -l mac -d 'The hardware address of its link' -r
complete -c netbox -n "__fish_netbox_using_subcommand network; and __fish_seen_subcommand_from connect" -l alias -d 'What the network\'s other boxes find it by besides' -r
complete -c netbox -n "__fish_netbox_using_subcommand network; and __fish_seen_subcommand_from connect" -l ifname -d 'The name of its interface [default: the next of eth1, eth2, …]' -r
complete -c netbox -n "__fish_netbox_using_subcommand network; and __fish_seen_subcommand_from connect" -s h -l help -d 'Print help'
complete -c netbox -n "__fish_netbox_using_subcommand network; and __fish_seen_subcommand_from disconnect" -s h -l help -d 'Print help'
complete -c netbox -n "__fish_netbox_using_subcommand network; and __fish_seen_subcommand_from help" -f -a "create" -d 'Make a network'
complete -c netbox -n "__fish_netbox_using_subcommand network; and __fish_seen_subcommand_from help" -f -a "ls" -d 'List the networks'
complete -c netbox -n "__fish_netbox_using_subcommand network; and __fish_seen_subcommand_from help" -f -a "inspect" -d 'Say everything about networks, as JSON'
complete -c netbox -n "__fish_netbox_using_subcommand network; and __fish_seen_subcommand_from help" -f -a "rm" -d 'Remove networks'
complete -c netbox -n "__fish_netbox_using_subcommand network; and __fish_seen_subcommand_from help" -f -a "prune" -d 'Remove the networks that no box is in'
complete -c netbox -n "__fish_netbox_using_subcommand network; and __fish_seen_subcommand_from help" -f -a "connect" -d 'Take a box that runs into a further network'
complete -c netbox -n "__fish_netbox_using_subcommand network; and __fish_seen_subcommand_from help" -f -a "disconnect" -d 'Take a box that runs out of a network'
complete -c netbox -n "__fish_netbox_using_subcommand network; and __fish_seen_subcommand_from help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c netbox -n "__fish_netbox_using_subcommand gc" -s h -l help -d 'Print help'
complete -c netbox -n "__fish_netbox_using_subcommand gateway" -s h -l help -d 'Print help'
complete -c netbox -n "__fish_netbox_using_subcommand help; and not __fish_seen_subcommand_from run exec ps port logs wait rm inspect pids identify stats monitor stop kill network gc gateway help" -f -a "run" -d 'Start a command in a box'
complete -c netbox -n "__fish_netbox_using_subcommand help; and not __fish_seen_subcommand_from run exec ps port logs wait rm inspect pids identify stats monitor stop kill network gc gateway help" -f -a "exec" -d 'Start a further command in a box'
complete -c netbox -n "__fish_netbox_using_subcommand help; and not __fish_seen_subcommand_from run exec ps port logs wait rm inspect pids identify stats monitor stop kill network gc gateway help" -f -a "ps" -d 'List the boxes'
complete -c netbox -n "__fish_netbox_using_subcommand help; and not __fish_seen_subcommand_from run exec ps port logs wait rm inspect pids identify stats monitor stop kill network gc gateway help" -f -a "port" -d 'List and change the published ports of boxes'
complete -c netbox -n "__fish_netbox_using_subcommand help; and not __fish_seen_subcommand_from run exec ps port logs wait rm inspect pids identify stats monitor stop kill network gc gateway help" -f -a "logs" -d 'Show what a detached box printed'
complete -c netbox -n "__fish_netbox_using_subcommand help; and not __fish_seen_subcommand_from run exec ps port logs wait rm inspect pids identify stats monitor stop kill network gc gateway help" -f -a "wait" -d 'Wait for the end of boxes, and exit as the last one did'
complete -c netbox -n "__fish_netbox_using_subcommand help; and not __fish_seen_subcommand_from run exec ps port logs wait rm inspect pids identify stats monitor stop kill network gc gateway help" -f -a "rm" -d 'Forget detached boxes that have ended, and their output'
complete -c netbox -n "__fish_netbox_using_subcommand help; and not __fish_seen_subcommand_from run exec ps port logs wait rm inspect pids identify stats monitor stop kill network gc gateway help" -f -a "inspect" -d 'Show everything about boxes, as JSON'
complete -c netbox -n "__fish_netbox_using_subcommand help; and not __fish_seen_subcommand_from run exec ps port logs wait rm inspect pids identify stats monitor stop kill network gc gateway help" -f -a "pids" -d 'List the processes of a box'
complete -c netbox -n "__fish_netbox_using_subcommand help; and not __fish_seen_subcommand_from run exec ps port logs wait rm inspect pids identify stats monitor stop kill network gc gateway help" -f -a "identify" -d 'Tell which box a process is in'
complete -c netbox -n "__fish_netbox_using_subcommand help; and not __fish_seen_subcommand_from run exec ps port logs wait rm inspect pids identify stats monitor stop kill network gc gateway help" -f -a "stats" -d 'Show the traffic of boxes, every second'
complete -c netbox -n "__fish_netbox_using_subcommand help; and not __fish_seen_subcommand_from run exec ps port logs wait rm inspect pids identify stats monitor stop kill network gc gateway help" -f -a "monitor" -d 'Tell when boxes start and end, and when their ports change'
complete -c netbox -n "__fish_netbox_using_subcommand help; and not __fish_seen_subcommand_from run exec ps port logs wait rm inspect pids identify stats monitor stop kill network gc gateway help" -f -a "stop" -d 'End boxes: SIGTERM to the command, and after a while SIGKILL'
complete -c netbox -n "__fish_netbox_using_subcommand help; and not __fish_seen_subcommand_from run exec ps port logs wait rm inspect pids identify stats monitor stop kill network gc gateway help" -f -a "kill" -d 'Send a signal to the commands of boxes'
complete -c netbox -n "__fish_netbox_using_subcommand help; and not __fish_seen_subcommand_from run exec ps port logs wait rm inspect pids identify stats monitor stop kill network gc gateway help" -f -a "network" -d 'Make, list and remove networks that boxes share, and change who is in them'
complete -c netbox -n "__fish_netbox_using_subcommand help; and not __fish_seen_subcommand_from run exec ps port logs wait rm inspect pids identify stats monitor stop kill network gc gateway help" -f -a "gc" -d 'Remove what boxes left that were killed together with netbox'
complete -c netbox -n "__fish_netbox_using_subcommand help; and not __fish_seen_subcommand_from run exec ps port logs wait rm inspect pids identify stats monitor stop kill network gc gateway help" -f -a "gateway" -d 'Start a command in the gateway\'s network, to look at it'
complete -c netbox -n "__fish_netbox_using_subcommand help; and not __fish_seen_subcommand_from run exec ps port logs wait rm inspect pids identify stats monitor stop kill network gc gateway help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c netbox -n "__fish_netbox_using_subcommand help; and __fish_seen_subcommand_from port" -f -a "ls" -d 'List the published ports of a box, or of all boxes'
complete -c netbox -n "__fish_netbox_using_subcommand help; and __fish_seen_subcommand_from port" -f -a "add" -d 'Publish ports of a box that runs, as run -p does'
complete -c netbox -n "__fish_netbox_using_subcommand help; and __fish_seen_subcommand_from port" -f -a "rm" -d 'Give up published ports of a box that runs: [IP:]HOSTPORT[-END][:BOXPORT[-END]][/PROTOCOL]'
complete -c netbox -n "__fish_netbox_using_subcommand help; and __fish_seen_subcommand_from network" -f -a "create" -d 'Make a network'
complete -c netbox -n "__fish_netbox_using_subcommand help; and __fish_seen_subcommand_from network" -f -a "ls" -d 'List the networks'
complete -c netbox -n "__fish_netbox_using_subcommand help; and __fish_seen_subcommand_from network" -f -a "inspect" -d 'Say everything about networks, as JSON'
complete -c netbox -n "__fish_netbox_using_subcommand help; and __fish_seen_subcommand_from network" -f -a "rm" -d 'Remove networks'
complete -c netbox -n "__fish_netbox_using_subcommand help; and __fish_seen_subcommand_from network" -f -a "prune" -d 'Remove the networks that no box is in'
complete -c netbox -n "__fish_netbox_using_subcommand help; and __fish_seen_subcommand_from network" -f -a "connect" -d 'Take a box that runs into a further network'
complete -c netbox -n "__fish_netbox_using_subcommand help; and __fish_seen_subcommand_from network" -f -a "disconnect" -d 'Take a box that runs out of a network'
