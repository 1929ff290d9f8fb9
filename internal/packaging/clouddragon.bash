# bash completion for clouddragon. The commands and flags come from -help, so they are
# those of the program that is installed.

_clouddragon() {
	local program=${COMP_WORDS[0]} cur=${COMP_WORDS[COMP_CWORD]} command='' usage='' words='' line i
	local first=1 args=0 value='' rest=''
	declare -A takes=() # flags with what follows them; empty for those that stand alone
	COMPREPLY=()

	line=$("$program" -help 2>/dev/null) || return
	while IFS= read -r line; do
		[[ $line =~ clouddragon\ ([a-z]+)\  ]] && words+=" ${BASH_REMATCH[1]}"
	done <<<"$line"
	if ((COMP_CWORD > 1)) && [[ " $words " == *" ${COMP_WORDS[1]} "* ]]; then
		command=${COMP_WORDS[1]} first=2 words=''
	fi

	while IFS= read -r line; do
		[[ $line == 'usage: '* ]] && usage=$line
		[[ $line =~ ^\ \ (-[a-z-]+)(\ ([^ ]+))?\ \  ]] && takes[${BASH_REMATCH[1]}]=${BASH_REMATCH[3]}
	done < <("$program" $command -help 2>/dev/null)

	# What the words before this one leave open: a flag's value, or how many arguments there are.
	for ((i = first; i < COMP_CWORD; i++)); do
		if [[ $value ]]; then
			value=''
		elif ((args == 0)) && [[ ${COMP_WORDS[i]} == -* ]]; then
			value=${takes[${COMP_WORDS[i]}]-}
		else
			((args++ == 1)) && rest=$i # of lock: the command that it runs
		fi
	done
	if [[ ! $value ]] && ((args == 0)) && [[ $cur == -* ]]; then
		mapfile -t COMPREPLY < <(compgen -W "${!takes[*]}" -- "$cur")
		return
	fi
	if [[ $command == lock && ! $value ]]; then
		((args == 0)) && return # the name of a lock
		if [[ $rest ]] && declare -F _command_offset >/dev/null; then
			_command_offset "$rest"
		elif [[ $rest ]]; then
			value=FILE
		else
			compopt -o filenames 2>/dev/null
			mapfile -t COMPREPLY < <(compgen -c -- "$cur"; [[ $cur == */* ]] && compgen -f -- "$cur")
			return
		fi
	elif [[ ! $value ]]; then
		mapfile -t COMPREPLY < <(compgen -W "$words" -- "$cur")
		[[ $command ]] && value=${usage##* } # what its usage ends with
	fi
	case $value in
	FILE)
		compopt -o filenames 2>/dev/null
		mapfile -t COMPREPLY < <(compgen -f -- "$cur")
		;;
	DIR)
		compopt -o filenames 2>/dev/null
		mapfile -t COMPREPLY < <(compgen -d -- "$cur")
		;;
	esac
}
complete -F _clouddragon clouddragon
