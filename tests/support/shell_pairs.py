"""Pairs of commands that agents write: SAME do the same, DIFFERENT do not. For the tests of swe."""

SAME = r"""
git log -n 5 ||| git log -5
git log -n5 --oneline ||| git log --oneline -n 5
git log --max-count=3 ||| git log -3
git commit -am "Fix it" ||| git commit -a -m "Fix it"
git commit -m 'Fix it' ||| git commit --message="Fix it"
git diff --cached ||| git diff --staged
git diff --cached --stat ||| git diff --stat --staged
git add --all ||| git add -A
git status --short ||| git status -s
git rm -r --cached build ||| git rm --cached -r build
git push -u origin main ||| git push --set-upstream origin main
git --no-pager log -5 ||| git log -n 5
find . -name '*.py' -type f ||| find . -type f -name '*.py'
find . -name '*.py' -type f ||| find -type f -name "*.py"
find src -type f -not -name '*.pyc' ||| find src ! -name '*.pyc' -type f
find . -maxdepth 2 -name a ||| find . -name a -maxdepth 2 -print
sed -i 's/a/b/' f ||| sed -i -e 's/a/b/' f
sed -n '1,20p' f ||| sed -n -e '1,20p' f
grep -rn foo src ||| grep -nr -e foo src
grep -rnw src -e 'foo' ||| grep -rnw foo src
ps aux | head ||| ps aux | head -n 10
ps aux | tail -10 ||| ps aux | tail
make | head -5 ||| make | head -n 5
tar -xzf a.tgz ||| tar xzf a.tgz
tar xzvf a.tgz ||| tar -xzf a.tgz
tar czf a.tgz src ||| tar -c -z -f a.tgz src
tar -xzf a.tgz -C /w ||| tar -C /w -xzf a.tgz
bash ./a.sh ||| bash a.sh
sh ./run.sh ||| sh run.sh
source venv/bin/activate ||| . venv/bin/activate
source ./venv/bin/activate && make ||| . venv/bin/activate && make
make > log 2>&1 ||| make &> log
make >> log 2>&1 ||| make &>> log
make >log 2>&1 ||| make >& log
make 1> log ||| make > log
make |& grep err ||| make 2>&1 | grep err
A=1 make ||| env A=1 make
A=1 B=2 make ||| B=2 A=1 make
A=1 timeout 90 make ||| timeout 90 env A=1 make
timeout 60 make ||| timeout 1m make
timeout 300 pytest a ||| timeout 600 pytest a
timeout 300 pip install x ||| pip install -q x
timeout 5 ls src ||| ls src
bash -c 'ls src' ||| ls src
cat ./src/a.py ||| cat src/a.py
ls ; pwd ||| ls; pwd;
echo "a b" > x ||| echo 'a b' >x
cat < a ||| cat 0< a
cd src && grep -rn foo . ||| grep -rn foo src
grep -n foo a.py ||| grep foo a.py
PAGER=cat git diff ||| git diff
ls 2>/dev/null ||| ls
git log --oneline | head ||| git log --oneline | head -10
for f in a b; do echo $f; done ||| for f in a b
do echo $f
done
curl -s "http://a/b" | jq . ||| curl -s http://a/b | jq .
docker ps -a | grep web ||| docker ps -a|grep 'web'
awk '{print $1}' a.txt ||| awk "{print \$1}" a.txt
find . -name '*.py' | xargs grep -l foo ||| find . -name "*.py" | xargs grep -l foo
find . -name '*.pyc' -exec rm {} \; ||| find . -name "*.pyc" -exec rm {} ';'
mkdir -p a/b && touch a/b/c ||| mkdir --parents a/b && touch ./a/b/c
rm -rf build ||| rm -fr build
rm -r -f build dist ||| rm --recursive --force build dist
cp -r src dst ||| cp -R src dst
wc -l a.py ||| wc --lines a.py
sort -u -k2 a ||| sort -k 2 --unique a
python -c 'import a; print(a.x)' ||| python3 -c "import a; print( a.x )"
pytest -k "a and b" tests ||| python -m pytest tests -k 'a and b' -v
sed -n '5,9p' a.py ||| head -9 a.py | tail -n +5
ls -la ||| ls -al .
"""

DIFFERENT = r"""
ln -s a b ||| ln -s /w/a b
ln -s ../lib/a bin/a ||| ln -s lib/a bin/a
ln -s a b ||| ln -s ./a b
ln --symbolic a b ||| ln --symbolic ./a b
ln -sf a b ||| ln -s a b
timeout 1 make ||| timeout 600 make
timeout 1 pytest a ||| timeout 600 pytest a
timeout 1 pytest a ||| pytest a
timeout 5 python server.py ||| python server.py
timeout 5 tail -f log ||| tail -f log
timeout 1 find / -name a ||| find / -name a
timeout 1 grep -rn a . ||| grep -rn a .
timeout 60 python server.py ||| python server.py
timeout 60 A=1 make ||| A=1 timeout 60 make
timeout 60 cd /w ||| cd /w
env A=1 cd /w ||| A=1 cd /w
env A=1 source a/b ||| A=1 source a/b
A=1 make ||| A=2 make
env A=1 make ||| make
A=$B B=2 make ||| B=2 A=$B make
PAGER='rm -rf x' git log ||| git log
GIT_PAGER=less git log ||| git log
PAGER=cat ||| NO_COLOR=1
FORCE_COLOR=1 pytest a ||| pytest a
/usr/bin/python3 a.py ||| python3 a.py
/usr/bin/pip install x ||| pip install x
bash -c 'echo $x' ||| echo $x
bash -c 'cd /w' ||| cd /w
bash -c 'x=1' ||| x=1
git log -n 5 ||| git log -n 50
git log -5 ||| git log -6
git log --oneline ||| git log --stat
git log -p ||| git log
git commit -m "Fix it" ||| git commit -am "Fix it"
git commit -m "Fix it" ||| git commit --amend -m "Fix it"
git commit -m a -m b ||| git commit -m b -m a
git commit -m "a" ||| git commit -m "a." 
git commit -n -m a ||| git commit -m a
git diff ||| git diff --cached
git diff HEAD~1 ||| git diff HEAD~2
git diff a.py ||| git diff -- b.py
git checkout a ||| git checkout -- a
git log a ||| git log -- a
git checkout -b a ||| git checkout a
git reset --hard ||| git reset --soft
git reset HEAD~1 ||| git reset --hard HEAD~1
git stash ||| git stash pop
git push ||| git push -f
git push origin main ||| git push origin dev
git add -A ||| git add -u
git add a.py ||| git add .
git status ||| git status -s
git apply a.patch ||| git apply -R a.patch
git -C /w status ||| git -C /v status
git rm a ||| git rm --cached a
git clean -fd ||| git clean -fdx
git rebase main ||| git merge main
git show HEAD ||| git show HEAD~
git branch -d a ||| git branch -D a
find . -name '*.py' -type f ||| find . -name '*.py' -type d
find . -name a -o -name b ||| find . -name a -name b
find . -name a -delete ||| find . -delete -name a
find . -name a ||| find . ! -name a
find . -name a -type f -delete ||| find . -type f -name a
find . -name '*.pyc' -exec rm {} \; ||| find . -name '*.pyc' -exec rm {} +
find . -name '*.py' -exec grep -l a {} \; ||| find . -name '*.py' -exec grep -L a {} \;
find . -maxdepth 1 -name a ||| find . -maxdepth 2 -name a
find . -name a ||| find . -iname a
find . -name a -prune ||| find . -name a
find ./src -path './src/a*' ||| find src -path './src/a*'
find . -type f -print0 ||| find . -type f -print
find ./src -name a | sed s,^./,, ||| find src -name a | sed s,^./,,
find . -mtime -1 ||| find . -mtime +1
find . -size +10M ||| find . -size +100M
find . -newer a ||| find . -newer b
sed -i 's/a/b/' f ||| sed -i 's/a/b/g' f
sed -i 's/30/300/' f ||| sed -i 's/30/3000/' f
sed -i 's/a/b/' f ||| sed 's/a/b/' f
sed -i.bak 's/a/b/' f ||| sed -i 's/a/b/' f
sed -n '10,20p' f ||| sed -n '10,21p' f
sed -n '10,20p' f ||| sed -n '11,20p' f
sed -n '10,20p' f ||| sed -n '10,20p' g
sed -i '5d' f ||| sed -i '6d' f
sed -i '5i x' f ||| sed -i '5a x' f
sed -i -e 1d -e 2d f ||| sed -i -e 2d -e 1d f
sed -e 's/a/b/' f ||| sed -f 's/a/b/' f
sed -E 's/(a)/b/' f ||| sed 's/(a)/b/' f
grep foo a ||| grep -v foo a
grep -c foo a ||| grep foo a
grep -l foo a b ||| grep -L foo a b
grep -A3 foo a ||| grep -B3 foo a
grep -A3 foo a ||| grep -A30 foo a
grep -w foo a ||| grep foo a
grep -E 'a|b' f ||| grep 'a|b' f
grep -F 'a.b' f ||| grep 'a.b' f
grep -o foo a ||| grep foo a
grep -rn foo src --include='*.py' ||| grep -rn foo src --include='*.pyx'
grep -rn foo src --exclude-dir=a ||| grep -rn foo src
grep -m1 foo a ||| grep -m2 foo a
grep foo a | wc -l ||| grep -n foo a | cut -d: -f1
rg foo -t py ||| rg foo -t js
rg -i foo ||| rg foo
rg foo -g '*.py' ||| rg foo -g '!*.py'
rg -l foo ||| rg foo
ps aux | head ||| ps aux | head -n 11
ps aux | tail ||| ps aux | tail -n +10
ps aux | head ||| ps aux | tail
head -c 10 a ||| head a
tail -f log ||| tail log
tar xzf a.tgz ||| tar tzf a.tgz
tar xzf a.tgz ||| tar xjf a.tgz
tar xzf a.tgz ||| tar czf a.tgz
tar -xfz a ||| tar xfz a
tar czf a.tgz -C src . ||| tar czf a.tgz . -C src
tar xzf a.tgz -C b ||| tar xzf a.tgz -C c
tar xzf a.tgz --strip-components=1 ||| tar xzf a.tgz
bash a.sh ||| bash b.sh
bash -x a.sh ||| bash a.sh
bash a.sh ||| sh a.sh
bash a.sh ||| ./a.sh
bash a.sh ||| source a.sh
source a ||| source ./a
. a/b ||| . a/c
pytest . ||| pytest
pytest tests/a.py::x ||| pytest tests/a.py::y
pytest -k a tests ||| pytest -k "not a" tests
pytest tests | tail -5 ||| pytest tests
pytest tests && git push ||| pytest tests; git push
pytest -n 4 ||| pytest -n 8
pytest --lf ||| pytest
pytest -m slow ||| pytest -m "not slow"
make > a 2>&1 ||| make 2>&1 > a
make > a 2>&1 ||| make > a
make &> a ||| make &>> a
make &> a ||| make &> b
make 2> a ||| make > a
make | tee log ||| make | tee -a log
make |& grep e ||| make | grep e
ls 2>&1 2>/dev/null | wc -l ||| ls 2>&1 | wc -l
make & ||| make
make && ls ||| make & ls
make && ls ||| make || ls
! make ||| make
make; ls ||| make | ls
(cd a && make) ||| cd a && make
{ make; } ||| (make)
if make; then ls; fi ||| if ! make; then ls; fi
while make; do ls; done ||| until make; do ls; done
for i in 1 2; do echo $i; done ||| for i in 1 2 3; do echo $i; done
echo $x ||| echo "$x"
echo ${x:-a} ||| echo ${x:-b}
echo ${x:-a} ||| echo ${x:+a}
echo $((1+2)) ||| echo $((1+3))
echo $(ls) ||| echo `pwd`
echo a > b ||| echo a >> b
echo -n a ||| echo a
echo -e 'a\n' ||| echo 'a\n'
echo 'a' ||| echo 'A'
echo a\ b ||| echo a b
echo "a  b" ||| echo "a b"
printf '%s' a ||| printf '%s\n' a
ls *.py ||| ls *.pyc
ls a?.py ||| ls a*.py
rm a.{py,js} ||| rm a.{py,ts}
rm {a,b}/../c ||| rm c
rm src/../a ||| rm a
rm *.py ||| rm '*.py'
rm -rf build ||| rm -rf ./build/..
rm -rf build/* ||| rm -rf build
rm -rf /w/build ||| rm -rf build
cp a b ||| cp b a
cp a b ||| cp a b/
cp -r a b ||| cp a b
mv a b ||| cp a b
chmod +x a.sh ||| chmod -x a.sh
chmod 755 a ||| chmod 775 a
chmod -R 755 a ||| chmod 755 a
mkdir a ||| mkdir -p a
touch a ||| touch b
kill -9 12 ||| kill 12
kill 12 ||| kill 13
pip install a ||| pip install b
pip install a==1.0 ||| pip install a==1.1
pip install 'a>=1' ||| pip install 'a<=1'
pip install -e . ||| pip install .
pip install -r a.txt ||| pip install a.txt
pip install -U a ||| pip install a
pip uninstall a ||| pip install a
apt-get install -y a ||| apt-get remove -y a
apt-get update ||| apt-get upgrade
npm install ||| npm ci
npm run build ||| npm run test
cargo test ||| cargo test --release
docker run a ||| docker run -d a
docker run -p 80:80 a ||| docker run -p 80:8080 a
docker rm a ||| docker rmi a
docker exec a ls ||| docker exec b ls
docker build -t a . ||| docker build -t b .
curl http://a/b ||| curl http://a/B
curl -X POST http://a ||| curl http://a
curl -d 'a=1' http://a ||| curl -d 'a=2' http://a
curl -o a http://b ||| curl -O http://b
curl "http://a?b=1&c=2" ||| curl http://a?b=1&c=2
wget a ||| wget -q -O - a
awk '{print $1}' a ||| awk '{print $2}' a
awk '{print $1}' a ||| awk "{print $1}" a
awk -F, '{print $1}' a ||| awk '{print $1}' a
awk 'NR<=10' a ||| awk 'NR<10' a
awk '$3 > 30' a ||| awk '$3 > 300' a
cut -d: -f1 a ||| cut -d: -f2 a
cut -d: -f1 a ||| cut -d, -f1 a
tr a b ||| tr b a
tr -d a ||| tr a ''
sort a ||| sort -n a
sort -k1 a ||| sort -k2 a
sort a | uniq ||| sort a | uniq -c
xargs rm < a ||| xargs -0 rm < a
xargs -n1 rm ||| xargs -n2 rm
ls | xargs rm ||| ls | xargs -I{} rm {}
xargs grep foo ||| xargs grep -l foo
diff a b ||| diff b a
diff -u a b ||| diff a b
test -f a ||| test -d a
[ $x -le 3 ] ||| [ $x -ge 3 ]
[ -z "$x" ] ||| [ -n "$x" ]
[[ $x == a ]] ||| [[ $x != a ]]
export A=1 ||| A=1
export A=1 ||| export A=2
unset A ||| unset B
cd a ||| cd b
cd .. ||| cd ../..
cd a && make ||| cd a; make
python a.py ||| python b.py
python a.py --n 30 ||| python a.py --n 300
python -m a ||| python a
python -c 'print(1 <= 2)' ||| python -c 'print(1 >= 2)'
python -c 'x = 1' ||| python -c 'x = 1.0'
python -i a.py ||| python a.py
python -O a.py ||| python a.py
python a.py < in ||| python a.py
python a.py & ||| python a.py
nohup python a.py & ||| python a.py &
sudo make ||| make
exec make ||| make
eval "$x" ||| $x
tmux send-keys -t a C-c ||| tmux send-keys -t a C-d
tmux send-keys -t a 'ls' Enter ||| tmux send-keys -t a 'ls'
sqlite3 a.db 'select a from b' ||| sqlite3 a.db 'select A from b'
ls ||| ls -R
ls -t ||| ls
cat a b ||| cat b a
cat a ||| cat -A a
wc -l a ||| wc -c a
du -sh a ||| du -sh b
date ||| date -u
sleep 1 ||| sleep 10
jq .a f ||| jq .b f
jq -r .a f ||| jq .a f
ssh a ls ||| ssh b ls
make -j4 ||| make -j4 all
make CC=gcc ||| make CC=clang
make -C a ||| make -C b
crontab -l ||| crontab -r
"""


def pairs(table: str) -> list[tuple[str, str]]:
    """The pairs of a table; a line without `|||` goes on the command before it."""
    found: list[list[str]] = []
    for line in table.strip("\n").split("\n"):
        if " ||| " in line:
            found.append(line.split(" ||| "))
        else:
            found[-1][1] += "\n" + line
    return [(gold, actual) for gold, actual in found]
